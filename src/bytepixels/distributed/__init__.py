"""Distributed training and sampling over several processes."""
