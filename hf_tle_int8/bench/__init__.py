"""Linears of this project beside those of others: what ``hf-tle-int8 bench`` runs."""
