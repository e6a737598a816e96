"""Turns a session into numbers with error bars: arrays in, frozen results out."""
