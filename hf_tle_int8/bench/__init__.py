"""What ``hf-tle-int8 bench`` runs: linears beside those of others, models in INT8 and float, compiling."""
