/* The compiler includes this before the interpreter of chat templates. The functions of std::string in libstdc++.so allocate
 * with the operator new of that library, which counts nothing: with this, these files define those functions themselves. */
#include <cstddef>
#ifdef __GLIBCXX__
#undef _GLIBCXX_EXTERN_TEMPLATE
#define _GLIBCXX_EXTERN_TEMPLATE -1 /* only of strings: a facet of a locale is found by the address of its own id */
#endif
