"""The type checker of tests/test_annotations.py: beartype, with an int accepted as a float."""

import beartype

typechecked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
