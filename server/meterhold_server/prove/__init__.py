"""Checkers of recorded histories, and a load that records one of a running service.

They share no code with the rules that they check.
"""
