// Telling the weights of models apart.
#pragma once

#include <cstdint>
#include <string>

/// A hash of samples of every tensor in a model's file, or files if it is split.
uint64_t hash_weights(const std::string & path);
