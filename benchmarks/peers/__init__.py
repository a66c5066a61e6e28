"""What cyllama is compared with, and how all of them are asked in the same way.

contender.py has the side of the runner, protocol.py that of an engine, and engines/ the engines: cyllama and
four other Python packages. server.py and tools.py run llama.cpp's own programs. `make bench` builds all of them.
"""
