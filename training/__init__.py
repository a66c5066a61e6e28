"""How tiny-chat was made: the corpus, the tokenizer, the network, its training and its evaluation."""
