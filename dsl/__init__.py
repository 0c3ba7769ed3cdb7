"""JSON workflows: the language, its validator, and the compiler to ordinary Python workflows."""
