"""Shared by all tests: modules beside this file (`tiny`) can be imported by name."""
