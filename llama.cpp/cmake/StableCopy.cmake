# cyllama_stable_copy(<out-var> <distribution> <module> <folder>)
#
# Copies <folder> of the importable package <module> to a path inside the build directory that names the version of
# <distribution>, and sets <out-var> to it. pip's isolated build environment has a new path on every build: compiled from
# there, every file would be out of date every time. An existing copy is left alone.

function(cyllama_stable_copy out distribution module folder)
  set(script
      "import importlib.metadata as m, importlib.util as u, pathlib"
      "p = pathlib.Path(u.find_spec('${module}').submodule_search_locations[0])"
      "print(m.version('${distribution}'), (p / '${folder}').as_posix(), sep='|')")
  string(REPLACE ";" "\n" script "${script}")
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c "${script}"
    OUTPUT_VARIABLE found ERROR_VARIABLE error RESULT_VARIABLE failed
    OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(failed)
    message(FATAL_ERROR "${distribution} is not importable from ${Python_EXECUTABLE}. It is a build requirement: "
                        "build with pip (which installs it), or install what pyproject.toml lists under "
                        "[build-system].\n${error}")
  endif()
  string(REGEX MATCH "^([^|]*)\\|(.*)$" matched "${found}")
  set(source "${CMAKE_MATCH_2}")
  set(copy "${CMAKE_BINARY_DIR}/sources/${distribution}-${CMAKE_MATCH_1}")
  if(NOT EXISTS "${copy}")
    message(STATUS "Copying ${distribution} ${CMAKE_MATCH_1} to ${copy}")
    file(REMOVE_RECURSE "${copy}.partial")
    file(COPY "${source}/" DESTINATION "${copy}.partial"
         PATTERN .git EXCLUDE PATTERN .github EXCLUDE PATTERN __pycache__ EXCLUDE)
    file(RENAME "${copy}.partial" "${copy}")
  endif()
  set(${out} "${copy}" PARENT_SCOPE)
endfunction()
