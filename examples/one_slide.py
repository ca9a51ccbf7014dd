"""Annotate one slide and print the area of each class.

Run: python examples/one_slide.py SLIDE OUT
"""

import sys

import wsiseg

if __name__ == "__main__":  # worker processes import this file: the guard is needed
    (result,) = wsiseg.annotate(sys.argv[1], sys.argv[2])
    print(f"{result.slide}: {result.status} {result.error}")
    print(f"  {result.tissue_mm2:.2f} mm² tissue, {result.tiles} tiles, {result.seconds:.1f} s")
    for name, area in result.class_mm2.items():
        print(f"  {name}: {area:.2f} mm²")
