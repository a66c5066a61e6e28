"""What cyllama is compared with: llama-server, llama-bench, llama-batched-bench and llama-cpp-python.

Each is as fast as it can be. `make bench` builds all of them.
"""
