"""A run as a picture: CPU per request of every proxy, as a multiple of the base's."""

from html import escape

from peers import BASE, OURS
from report import TITLES, Run, median

LABEL, BAR_AREA, VALUE, ROW, GAP, TOP = 190, 440, 60, 16, 34, 56
# What is above is cut, with its figure beside it: one outlier must not flatten everything else.
GREATEST = 2.0
OURS_COLOUR, BASE_COLOUR, OTHER_COLOUR = "#0b6e4f", "#8a8f98", "#c3c8d0"


def svg(result: dict) -> str:
    run = Run(result)
    parts, y = [], TOP
    for scenario in run.scenarios:
        bars = []
        for peer in run.peers:
            ratio = median(run.ratios(scenario, peer))
            if ratio is not None:
                bars.append((peer, ratio))
        if not bars:
            continue
        y += GAP
        parts.append(f'<text x="8" y="{y - 8}" font-weight="bold">{escape(TITLES[scenario])}</text>')
        for peer, ratio in bars:
            width = min(ratio, GREATEST) / GREATEST * BAR_AREA
            colour = BASE_COLOUR if peer == BASE else OTHER_COLOUR
            if peer.startswith(OURS):
                colour = OURS_COLOUR
            parts.append(
                f'<text x="{LABEL - 8}" y="{y + 11}" text-anchor="end">{escape(peer)}</text>'
                f'<rect x="{LABEL}" y="{y + 1}" width="{width:.1f}" height="{ROW - 4}"'
                f' fill="{colour}"/>'
                f'<text x="{LABEL + width + 6:.1f}" y="{y + 11}">{ratio:.2f}</text>'
            )
            y += ROW
    one = LABEL + BAR_AREA / GREATEST
    width, height = LABEL + BAR_AREA + VALUE, y + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n'
        f'<text x="8" y="24" font-size="16">Proxy CPU per request, as a multiple of {BASE}\'s'
        "</text>\n"
        f'<text x="8" y="44">Less is better. {result["workers"]} worker(s),'
        f' medians of {result["rounds"]} rounds.</text>\n'
        f'<line x1="{one}" y1="{TOP}" x2="{one}" y2="{y}" stroke="#888" stroke-dasharray="3 3"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
