// The module cyllama.llama._processor: what the processor can do, as far as cyllama/llama/_variant.py asks. It is compiled
// for every processor, because it chooses among modules that are not.
#include <Python.h>

#if defined(__x86_64__)
#include <cpuid.h>

// The registers whose state the operating system saves: with a processor's AVX-512 alone, its instructions are not valid.
static unsigned saved_state(void) {
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int add_features(PyObject * names) {
    unsigned a, b, c, d, a7 = 0, b7 = 0, c7 = 0, d7 = 0, a71 = 0, unused;
    if (!__get_cpuid(1, &a, &b, &c, &d)) {
        return 0;
    }
    if (__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7) && a7 >= 1) {
        __get_cpuid_count(7, 1, &a71, &unused, &unused, &unused);
    }
    const unsigned saved = c >> 27 & 1 ? saved_state() : 0; // bit 27: OSXSAVE
    const int avx = (saved & 0x06) == 0x06, avx512 = (saved & 0xE6) == 0xE6;
    const struct {
        const char * name;
        int present;
    } features[] = {
        {"sse42", c >> 20 & 1},
        {"popcnt", c >> 23 & 1},
        {"avx", avx && c >> 28 & 1},
        {"f16c", avx && c >> 29 & 1},
        {"fma", avx && c >> 12 & 1},
        {"avx2", avx && b7 >> 5 & 1},
        {"bmi2", b7 >> 8 & 1},
        {"avxvnni", avx && a71 >> 4 & 1},
        {"avx512f", avx512 && b7 >> 16 & 1},
        {"avx512dq", avx512 && b7 >> 17 & 1},
        {"avx512cd", avx512 && b7 >> 28 & 1},
        {"avx512bw", avx512 && b7 >> 30 & 1},
        {"avx512vl", avx512 && b7 >> 31 & 1},
        {"avx512vnni", avx512 && c7 >> 11 & 1},
        {"avx512bf16", avx512 && a71 >> 5 & 1},
    };
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

static int add_features(PyObject * names) {
    const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    const struct {
        const char * name;
        int present;
    } features[] = {
        {"fp16", (first >> 10 & 1) != 0},    // HWCAP_ASIMDHP
        {"dotprod", (first >> 20 & 1) != 0}, // HWCAP_ASIMDDP
        {"i8mm", (second >> 13 & 1) != 0},   // HWCAP2_I8MM
    };
#endif
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); ++i) {
        PyObject * name = features[i].present ? PyUnicode_FromString(features[i].name) : NULL;
        const int failed = features[i].present && (name == NULL || PyList_Append(names, name) != 0);
        Py_XDECREF(name);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

static PyObject * features(PyObject * module, PyObject * unused) {
    (void) module;
    (void) unused;
    PyObject * names = PyList_New(0);
    if (names != NULL && add_features(names) != 0) {
        Py_CLEAR(names);
    }
    return names;
}

static PyMethodDef methods[] = {
    {"features", features, METH_NOARGS, "Return the names of what the processor can do."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_processor", "What the processor can do.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__processor(void) { return PyModule_Create(&definition); }
