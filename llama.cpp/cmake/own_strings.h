/* Included by the compiler before the interpreter of chat templates. The definitions of std::string's functions in
 * libstdc++.so allocate with its own operator new, which counts nothing: these files get definitions of their own. */
#include <cstddef>
#ifdef __GLIBCXX__
#undef _GLIBCXX_EXTERN_TEMPLATE
#define _GLIBCXX_EXTERN_TEMPLATE -1 /* only of strings: facets of locales are found by the address of their own */
#endif
