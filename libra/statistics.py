"""Statistics of measured shares."""


def wilson(right: float, asked: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval of a share `right` / `asked`; by default the 95 % one."""
    middle = (right + z * z / 2) / (asked + z * z)
    half = z / (asked + z * z) * (right * (asked - right) / asked + z * z / 4) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
