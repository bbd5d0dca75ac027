"""Parity: recorded cases (folders with a `case.json`) against our implementation, one row per
expected value.

How a system joins: it adds its own folder and nothing else is edited.

    pipeline/parity/<system>/<part>.py      (`-` in the system's name becomes `_`)
        HANDLERS: dict[str, Handler] = {"<kind>": function, ...}

A case names its `system` and `kind`; only the files in the folder of that system are imported, so
a file may import torch at its top. A handler takes a `Case` and yields `Comparison`s,
made by the functions of `compare`:

    def square(case: Case) -> Iterator[Comparison]:
        yield close("t2v_greater", ours, case.outputs["t2v_greater"], Tolerance(0))
        yield from close_tree("expected.t2v", our_dict, case.info["expected"]["t2v"],
                              Tolerance(1e-6))

What must become a row is decided by `run`, not by the handler; anything missing fails the case as
"not compared":
- every array of `outputs.npz` except those named `dummy`: a row of that name (or `name[...]` for
  parts of it);
- every leaf below `expected` in case.json: a row "expected.a.b" (a list without dictionaries is one
  leaf);
- every other top-level key of case.json that is not a description (`case.DESCRIPTIONS`): the
  handler must read it (`case.info["key"]`), because options, file names and expected values all
  look alike there;
- every file in the folder: the handler must take its path from `case.path(name)`, to read it as
  input or to compare.

A kind without a handler, a handler that raises, and a run without a single row fail too. Nothing
may be built in that holds for one particular case: sizes, options and names come from the case.
"""
