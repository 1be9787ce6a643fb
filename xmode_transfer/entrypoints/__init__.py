"""Shells: parse, call one service, render. No decisions."""
