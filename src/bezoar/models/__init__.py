"""Classifiers: the common interface, the CIFAR networks, other libraries' networks, safe files."""
