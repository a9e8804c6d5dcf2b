"""The games: the papers' algorithms, one page each, and the stages that they share."""
