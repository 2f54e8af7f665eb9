"""Extraction as in Tramèr et al. (2016) and Lowd and Meek (2005)."""
