"""AlpacaEval 1 and 2: a judge says which of two answers to an instruction people would prefer."""
