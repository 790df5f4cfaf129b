"""The tests, by claim: one folder for each part of what the project promises."""
