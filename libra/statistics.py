"""Shares: as words, and how sure a measured one is."""

Z = 1.959964  # standard deviations to either side: 95 % of a normal distribution


def percent(share: float) -> str:
    """`47 %`, `0.6 %`, `99.6 %`, `< 0.1 %`, `> 99.9 %`"""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    whole = share in (0, 1) or 0.0995 <= share < 0.995 or share > 1
    return f"{share * 100:.{0 if whole else 1}f} %"


def wilson(right: float, asked: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share `right` / `asked`."""
    middle = (right + Z * Z / 2) / (asked + Z * Z)
    half = Z / (asked + Z * Z) * (right * (asked - right) / asked + Z * Z / 4) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
