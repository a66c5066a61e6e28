"""Templates that take without end of something, and templates that once ended a process."""

from __future__ import annotations

ENDLESS, STEPS, MEMORY = "without end|too deep", "too many steps", "too much memory"
_NS = "{% set ns = namespace(x=[1], t=(1, 2), s='a') %}"
_TIMES_60 = "{% for i in range(60) %}"
_SELF = "{% set _ = messages.append(messages) %}"

#: Templates that take without end of something, and what the error says.
GREEDY = {
    "a list in itself": (_SELF + "{{ messages }}", ENDLESS),
    "a list in itself as JSON": (_SELF + "{{ messages | tojson }}", ENDLESS),
    "a list in itself as text": (_SELF + "{{ messages | string }}", ENDLESS),
    "an object in itself as JSON": (_NS + "{% set ns.x = ns %}{{ ns | tojson }}", ENDLESS),
    "a macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ENDLESS),
    "a default that calls its macro": ("{% macro f(x=f()) %}{% endmacro %}{{ f() }}", ENDLESS),
    "a text many times": ("{{ 'x' * 1000000000 }}", MEMORY),
    "a wide indentation": ("{{ 'a\nb' | indent(4000000000) }}", MEMORY),
    "JSON with a wide indentation": ("{{ messages | tojson(indent=1000000000) }}", MEMORY),
    "a text between all letters": ("{{ ('x' * 1000000) | replace('', 'y' * 1000000) }}", MEMORY),
    "numbers up to the last one": ("{{ range(-9223372036854775807, 9223372036854775807, 3) }}", MEMORY),
    "numbers beyond the last one": ("{{ range(9223372036854775800, 9223372036854775807, 5) }}", MEMORY),
    "a text twice as long each time": (_NS + _TIMES_60 + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}", MEMORY),
    "a long text many times": (
        "{% set s = 'a' * 10000000 %}{% for i in range(1000) %}{{ s }}{% endfor %}",
        f"{MEMORY}|{STEPS}",
    ),
    "a list of the same list": (
        _NS + _TIMES_60 + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        f"{MEMORY}|{STEPS}",
    ),
    "a key of the same tuple": (_NS + _TIMES_60 + "{% set ns.t = (ns.t, ns.t) %}{% endfor %}{{ {}[ns.t] }}", STEPS),
    "loops in loops": ("{% for a in range(10000) %}" * 3 + "{% endfor %}" * 3, STEPS),
    "lists in lists": ("{% for a in range(100000) | list %}" * 2 + "{% endfor %}" * 2, f"{MEMORY}|{STEPS}"),
    "a text in a text": ("{% set s = 'a' * 20000000 %}{{ ('a' * 10000000 ~ 'b') in s }}", STEPS + "|" + MEMORY),
    "tests of a long text": (
        "{% set s = 'a' * 300000 %}{% for i in range(100000) %}{{ s is lower }}{% endfor %}",
        STEPS,
    ),
    "the largest of a long list": (
        "{% set l = range(50000) %}{% for i in range(99999) %}{{ l | max }}{% endfor %}",
        STEPS,
    ),
}

#: Templates that crashed a process, and are right, or wrong in a way of their own.
HARMLESS = {
    "{{ [1, 2.5, true, none, 'a'] | tojson }}": None,
    "{{ 5 is divisibleby(0) }}": "division by zero",
    "{{ [1, 2] | select('divisibleby', 0) | list }}": "division by zero",
    "{{ (0 - 9223372036854775807 - 1) is divisibleby(0 - 1) }}": None,
    "{{ 'x'" + " | upper" * 2000 + " }}": None,
    "{{ ('x ' * 5000).split(' ') | length }}": None,
    "{{ ('x ' * 5000).rsplit(' ') | length }}": None,
    "{{ ('x ' * 5000) | replace(' ', '') | length }}": None,
    "{{ ('x' * 5000).strip('yx') | length }}": None,
    _NS + "{% for i in range(2000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ 1 }}": None,
    _NS + "{% for i in range(300) %}{% set _ = ns.x.append(['nan' | float, i, i | string][i % 3]) %}{% endfor %}"
    "{{ ns.x | sort | length }}": None,
    "{{ {'b': 'nan' | float, 'a': 1} | dictsort }}": None,
    "{{ [1, 2, 3][::4611686018427387904] }}": None,
    "{{ 1 / 0 }}{{ 1 % 0 }}": None,
    "{{ " + "not " * 3000 + "1 }}": None,
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}": None,
}
