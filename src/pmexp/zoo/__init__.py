"""`python -m pmexp.zoo`: packed dropout in every class of models at hand, compared with torch's."""
