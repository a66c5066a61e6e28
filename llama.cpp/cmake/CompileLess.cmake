# Less to compile of llama.cpp than its targets have, and less work on what takes long to optimize and no time when it runs.

# cyllama_parts(<result> <file> <begin> <end> ...)
#
# Writes a copy of a source file that has parts of it: each from where one text begins to where another one does. <result> is
# the path of the copy. After an update of llama.cpp that has no such texts, configuring fails here.
function(cyllama_parts result file)
  file(READ "${file}" text)
  set(copy "")
  math(EXPR last "${ARGC} - 1")
  foreach(i RANGE 2 ${last} 2)
    math(EXPR next "${i} + 1")
    string(FIND "${text}" "${ARGV${i}}" begin)
    string(FIND "${text}" "${ARGV${next}}" end)
    math(EXPR length "${end} - ${begin}")
    if(begin EQUAL -1 OR length LESS 1)
      message(FATAL_ERROR "llama.cpp has changed: ${file} has no part from\n${ARGV${i}}\nto\n${ARGV${next}}")
    endif()
    string(SUBSTRING "${text}" ${begin} ${length} part)
    string(APPEND copy "${part}")
  endforeach()
  get_filename_component(name "${file}" NAME)
  set(path "${CMAKE_CURRENT_BINARY_DIR}/${name}")
  set(present "")
  if(EXISTS "${path}")
    file(READ "${path}" present)
  endif()
  if(NOT present STREQUAL copy)
    file(WRITE "${path}" "${copy}")
  endif()
  set(${result} "${path}" PARENT_SCOPE)
endfunction()

# cyllama_group(<target> <name> <file> ...)
#
# Compiles sources of a target as one, <name>.cpp: what they include and instantiate is compiled once. The files are named as
# the target names them. What they include is looked for beside each of them, as if it were compiled alone; relative paths
# let ccache find what another folder has compiled, which those of CMake's UNITY_BUILD would not.
function(cyllama_group target name)
  get_target_property(folder ${target} SOURCE_DIR)
  get_target_property(sources ${target} SOURCES)
  set(includes "")
  foreach(file IN LISTS ARGN)
    if(NOT file IN_LIST sources)
      message(FATAL_ERROR "llama.cpp has changed: ${target} has no source ${file}")
    endif()
    string(REPLACE "${folder}/" "" path "${file}")
    string(APPEND includes "#include \"${path}\"\n#undef FILENAME\n") # which several files of llama-common define
  endforeach()
  list(REMOVE_ITEM sources ${ARGN})
  set(group "${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp")
  file(GENERATE OUTPUT "${group}" CONTENT "${includes}")
  set_property(TARGET ${target} PROPERTY SOURCES ${sources} "${group}")
endfunction()

# cyllama_optimize_less(<target> <regex>...)
#
# Compiles the sources of a target whose paths match with -O1. Each regular expression has to match one.
function(cyllama_optimize_less target)
  get_target_property(folder ${target} SOURCE_DIR)
  get_target_property(sources ${target} SOURCES)
  foreach(regex IN LISTS ARGN)
    set(matching ${sources})
    list(FILTER matching INCLUDE REGEX "${regex}")
    if(NOT matching)
      message(FATAL_ERROR "llama.cpp has changed: ${target} has no source that matches ${regex}")
    endif()
    list(TRANSFORM matching PREPEND "${folder}/" REGEX "^[^/]")
    set_property(SOURCE ${matching} TARGET_DIRECTORY ${target} APPEND PROPERTY COMPILE_OPTIONS -O1)
  endforeach()
endfunction()
