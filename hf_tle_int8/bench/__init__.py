"""Linears of this project beside those of others, and models in INT8 and float: what ``hf-tle-int8 bench`` runs."""
