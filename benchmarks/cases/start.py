"""What an engine costs before and beside its work: import, load, memory, energy."""

from __future__ import annotations

from collections.abc import Iterator

from cases.scenario import Run, note_failures, take_turns
from kit.machine import energy_joules
from kit.measurement import Measurement
from kit.process import memory
from kit.prompts import ask
from peers.contender import EVERYONE, Contender


def measure_start(run: Run) -> Iterator[Measurement]:
    """Measure the import, the load of a model until it can answer, and resident memory before and after 4 callers.

    Every round starts a process of its own. The file of the model is in the page cache. A package may import parts of
    itself when a model is loaded: what counts is both together.
    """
    imports = Measurement("start", "Import of the package", "ms", "less")
    loads = Measurement("start", "Import and load of a model", "ms", "less")
    idle = Measurement("start", "Memory with a loaded model, idle", "MiB", "less")
    peak = Measurement("start", "Peak memory with 4 callers", "MiB", "less")
    all_of_them = (imports, loads, idle, peak)
    for round_ in range(run.rounds):
        for name in EVERYONE:
            with run.field(n_ctx=512, n_parallel=4, only=(name,)) as field:

                def measure(name: str, contender: Contender, round_: object) -> None:
                    if "import" in contender.started:
                        imports.add(name, 1000 * contender.started["import"])
                    loads.add(name, 1000 * sum(contender.started.values()))
                    before = memory(contender.pid)
                    if before is not None:
                        idle.add(name, before.now)
                    contender.ask([ask(run.model, 60, 16, "start", round_, i, bias=run.bias) for i in range(4)])
                    after = memory(contender.pid)
                    if after is not None:
                        peak.add(name, after.peak)

                if field.running:
                    take_turns(field, [round_], measure)
                note_failures(field, *all_of_them)
    yield from all_of_them


def measure_energy(run: Run) -> Iterator[Measurement]:
    """Measure the energy of the processor for a token, where the machine tells."""
    energy = Measurement("energy", "Energy of the processor for a token", "J", "less")
    if energy_joules() is None:
        energy.failures["this machine"] = "not told: no readable energy meter (RAPL)"
        yield energy
        return
    n_tokens = 16 if run.quick else 256
    with run.field(n_ctx=512, n_parallel=1) as field:

        def measure(name: str, contender: Contender, round_: object) -> None:
            before = energy_joules() or 0.0
            outcome = contender.ask([ask(run.model, 8, n_tokens, "energy", round_, bias=run.bias)])
            energy.add(name, ((energy_joules() or 0.0) - before) / outcome.n_tokens)

        take_turns(field, range(run.rounds), measure)
        note_failures(field, energy)
    yield energy
