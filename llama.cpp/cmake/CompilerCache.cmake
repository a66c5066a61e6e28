# Compile through ccache where it is installed. Paths below the project are hashed relative to it, so that two clones
# share one cache; `env` (and not `cmake -E env`) because pip's build isolation moves cmake with every build.

find_program(CYLLAMA_CCACHE ccache)
find_program(CYLLAMA_ENV env)
mark_as_advanced(CYLLAMA_CCACHE CYLLAMA_ENV)
if(CYLLAMA_CCACHE AND CYLLAMA_ENV AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(launcher ${CYLLAMA_ENV} CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CYLLAMA_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${launcher})
endif()
