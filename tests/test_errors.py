import re

import wsiseg.errors as errors


def test_the_drawn_tree_is_the_class_tree():
    stack: list[str] = []
    drawn = {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"^    ([│├└─ ]*)(\w+)(?:\((\w+)\))?$", line)
        if not found:
            continue
        depth = len(found[1]) // 4
        stack[depth:] = [found[2]]
        drawn[found[2]] = (stack[depth - 1] if depth else None, found[3])
    assert set(drawn) == set(errors.__all__)
    for name, (parent, builtin) in drawn.items():
        bases = {base.__name__ for base in getattr(errors, name).__bases__}
        assert bases == {parent, builtin} - {None}


def test_all_is_sorted_and_importable():
    assert errors.__all__ == sorted(errors.__all__)
    assert all(hasattr(errors, name) for name in errors.__all__)
