"""The command line ``hf-tle-int8``, one file a command."""
