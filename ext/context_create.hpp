// Creating a context.
#pragma once

#include "context.hpp"

/// LlamaContext.__init__: constructs the object at `self`. `params` is null for the defaults.
void create_context(LlamaContext * self, const LlamaModel & model, const LlamaContextParams * params);
