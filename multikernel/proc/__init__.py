"""The machine's view: a tree of texts as /proc is one, made by the reader from the shared pages alone.

`tree.Proc` is the tree; a module here, and in `instance`, makes one leaf. Each has two functions: `values` gives what
the leaf says as plain data (a JSON document has it), `text` writes that down. docs/proc.md says what each line means.
"""
