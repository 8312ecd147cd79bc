"""The mail that every contender of a benchmark sends: 5 KB of HTML and a text, three variables, words beyond ASCII.

Decides the content and the recipients, and renders them by plain replacement. The templates use only `{{ name }}`,
which Jinja2 and Django's template language both understand, so that a contender may render them itself.
"""

SENDER = "Käthe Größer <news@outreach.example>"
NAMES = ("Zoë", "Jürgen", "François", "Łukasz", "Søren", "Αλέξανδρος", "美咲", "Anna", "Björn", "Chloé")

SUBJECT = "{{ name }}, für {{ city }}: Ihr Angebot № {{ code }}"

TEXT = """Guten Tag {{ name }},

in {{ city }} gilt bis Sonntag Ihr Gutschein {{ code }}. Einlösen können Sie ihn in jeder Filiale und im Netz:
https://outreach.example/{{ code }}

Schöne Grüße
Käthe Größer
"""

_ROW = """<tr><td style="padding: 12px; border-bottom: 1px solid #dddddd; font-family: sans-serif; color: #333333">
  <a href="https://outreach.example/offers/{number}?voucher={{{{ code }}}}">Angebot {number} für {{{{ name }}}}</a>
  <p>Nur in {{{{ city }}}}: frisch geröstet, von Hand verlesen, für 4,90&nbsp;€ statt 6,50&nbsp;€,
  solange es reicht.</p>
</td></tr>
"""

HTML = (
    '<!DOCTYPE html>\n<html lang="de"><head><meta charset="utf-8"><title>Angebote</title></head><body>\n'
    "<h1>Guten Tag {{ name }}</h1>\n<table>\n"
    + "".join(_ROW.format(number=number) for number in range(1, 15))
    + "</table>\n<p>Ihr Gutschein: {{ code }}</p>\n</body></html>\n"
)


def recipient(i: int) -> tuple[str, dict[str, str]]:
    """The i-th recipient: a distinct address, and the values of the three variables."""
    name = NAMES[i % len(NAMES)]
    return f"person{i}@recipients.example", {"name": name, "city": f"Köln-{i % 97}", "code": f"G{i:08d}"}


def mix(i: int) -> tuple[str, str, str, str, str]:
    """The i-th mail, rendered: address, name, subject, text, HTML."""
    address, variables = recipient(i)
    subject, text, html = (_rendered(template, variables) for template in (SUBJECT, TEXT, HTML))
    return address, variables["name"], subject, text, html


def _rendered(template: str, variables: dict[str, str]) -> str:
    for name, value in variables.items():
        template = template.replace("{{ " + name + " }}", value)
    return template
