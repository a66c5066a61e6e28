# The processors that ggml-cpu can be built for, by name, with their compiler options. cyllama/llama/_variant.py says what each
# of them needs, and chooses one at import.
#
# CYLLAMA_CPU_VARIANTS: further processors to build an extension module for, beside the one of the machine that builds.
# CYLLAMA_PORTABLE: build for other machines instead, as a wheel has to, with a module for each processor that makes a
# difference. With a backend for GPUs there is one: it would be in each of them, and takes most of the space.

set(cyllama_cpu_flags_sse42 -msse4.2)
set(cyllama_cpu_flags_avx2 ${cyllama_cpu_flags_sse42} -mavx -mf16c -mfma -mavx2 -mbmi2)
set(cyllama_cpu_flags_avxvnni ${cyllama_cpu_flags_avx2} -mavxvnni)
set(cyllama_cpu_flags_avx512 ${cyllama_cpu_flags_avx2} -mavx512f -mavx512cd -mavx512vl -mavx512dq -mavx512bw)
set(cyllama_cpu_flags_avx512vnni ${cyllama_cpu_flags_avx512} -mavx512vnni)
set(cyllama_cpu_flags_avx512bf16 ${cyllama_cpu_flags_avx512vnni} -mavx512bf16)
set(cyllama_cpu_flags_armv8 -march=armv8-a)
set(cyllama_cpu_flags_dotprod -march=armv8.2-a+dotprod+fp16)
set(cyllama_cpu_flags_i8mm -march=armv8.2-a+dotprod+fp16+i8mm)

set(known)
set(least)
if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux") # the linker's options in ext/CMakeLists.txt are GNU's
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(known sse42 avx2 avxvnni avx512 avx512vnni avx512bf16)
  set(least avx2)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(known armv8 dotprod i8mm)
  set(least armv8)
endif()

option(CYLLAMA_PORTABLE "build for every processor of this architecture, and not for this machine's" OFF)
set(CYLLAMA_CPU_VARIANTS "" CACHE STRING "processors to build a further extension module for: avx2, sse42, ...")
foreach(variant IN LISTS CYLLAMA_CPU_VARIANTS)
  if(NOT variant IN_LIST known)
    list(JOIN known ", " names)
    message(FATAL_ERROR "CYLLAMA_CPU_VARIANTS: '${variant}' is not one of those that can be built here: ${names}")
  endif()
endforeach()

set(CYLLAMA_CPU "") # what the module of the target llama_cpp is for; empty: for this machine, or for ggml's choice
if(CYLLAMA_PORTABLE)
  set(GGML_NATIVE OFF CACHE BOOL "ggml: optimize the build for the current system" FORCE)
  if(GGML_CUDA OR GGML_HIP OR GGML_VULKAN)
    set(CYLLAMA_CPU ${least})
    set(CYLLAMA_CPU_VARIANTS)
  elseif(known)
    list(GET known 0 CYLLAMA_CPU)
    set(CYLLAMA_CPU_VARIANTS ${known})
    list(REMOVE_AT CYLLAMA_CPU_VARIANTS 0)
  endif()
  if(CYLLAMA_CPU) # its options are added to the target, in CMakeLists.txt
    foreach(feature SSE42 AVX AVX2 F16C FMA BMI2)
      set(GGML_${feature} OFF CACHE BOOL "" FORCE)
    endforeach()
  endif()
endif()
