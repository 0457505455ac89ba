"""Countdown as a checker sees it: the problem, the rules, the grammar of an answer, the verdict."""
