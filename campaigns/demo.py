"""Made-up people and a workflow to try things out with: 2,000 recipients in three languages, a few of them bad."""

import csv
import io
import random
from collections.abc import Iterator

from django.db import transaction

from campaigns.audiences.stored import store_upload
from campaigns.authoring import save_version
from campaigns.models import Audience, AudienceKind, Step, Template, Workflow
from delivery.addresses import identity, normalise
from delivery.models import Engine, EngineLimit, Pool, PoolMember, Suppression, SuppressionReason

SLUG = "demo"
PEOPLE = 2000
RATE = 400  # messages a second: slow enough to watch

NAMES = {
    "en": (("Olivia", "Noah", "Amelia", "Arthur", "Zoë"), ("Smith", "O'Neill", "Taylor", "Brown-Lee", "Evans")),
    "de": (("Jürgen", "Käthe", "Björn", "Frauke", "Sören"), ("Müller", "Groß", "Schäfer", "Köhler", "Weiß")),
    "ja": (("さくら", "陽翔", "美咲", "蓮", "葵"), ("佐藤", "鈴木", "高橋", "田中", "渡辺")),
}
CITIES = {"en": ("Leeds", "Cork", "Bristol"), "de": ("Köln", "Zürich", "Graz"), "ja": ("東京", "大阪", "札幌")}

# Rows as they turn up in real files. Each is counted with its reason; the good ones go on.
BAD_ROWS = (
    ("", "Nobody", "en", "Leeds", "3"),
    ("no-at-sign.example.test", "Missing At", "en", "Cork", "1"),
    ("two@@example.test", "Two Ats", "en", "Bristol", "2"),
    ("space in@example.test", "Leerzeichen", "de", "Graz", "4"),
    ("PERSON-00007@Example.Test", "Written twice", "en", "Leeds", "1"),
)
SUPPRESSED = (11, 222, 1333)

SUBJECT = """\
{% if language == "de" %}{{ name }}, Ihr Garten im Frühling 🌱
{%- elif language == "ja" %}{{ name }}さん、春のお庭だより 🌱
{%- else %}{{ name }}, your garden in spring 🌱{% endif %}"""

HTML = """\
<!doctype html>
<html lang="{{ language }}">
<body style="font-family: Georgia, serif; max-width: 36em; margin: 2em auto; color: #1f2d1f">
{% if language == "de" %}
<h1>Guten Tag, {{ name }}!</h1>
<p>In {{ city }} ist die Erde warm genug. Für Ihre {{ plants }} Pflanzen haben wir drei Ratschläge:</p>
<ul><li>Morgens gießen</li><li>Die Töpfe drehen</li><li>Geduld haben</li></ul>
<p><a href="https://example.test/de/garten?stadt={{ city|urlencode }}">Zum Gartenkalender</a></p>
{% elif language == "ja" %}
<h1>{{ name }}さん、こんにちは！</h1>
<p>{{ city }}の土が温まってきました。{{ plants }}鉢の植物のために、三つのコツをお届けします。</p>
<ul><li>朝に水をやる</li><li>鉢を回す</li><li>気長に待つ</li></ul>
<p><a href="https://example.test/ja/niwa?city={{ city|urlencode }}">お庭カレンダーへ</a></p>
{% else %}
<h1>Hello {{ name }}!</h1>
<p>The soil in {{ city }} is warm enough now. For your {{ plants }} plant{{ "" if plants == "1" else "s" }} we have
three pieces of advice:</p>
<ul><li>Water in the morning</li><li>Turn the pots</li><li>Be patient</li></ul>
<p><a href="https://example.test/en/garden?city={{ city|urlencode }}">To the garden calendar</a></p>
{% endif %}
</body>
</html>
"""


def address(number: int) -> str:
    return f"person-{number:05}@example.test"


def rows(seed: int = 2026) -> Iterator[tuple[str, ...]]:
    """The lines of the demo's CSV file, bad ones among them."""
    rng = random.Random(seed)  # noqa: S311  (made-up people)
    yield ("email", "name", "language", "city", "plants")
    for number in range(1, PEOPLE + 1):
        language = rng.choice(list(NAMES))
        given, family = (rng.choice(part) for part in NAMES[language])
        name = f"{family} {given}" if language == "ja" else f"{given} {family}"
        yield (address(number), name, language, rng.choice(CITIES[language]), str(rng.randint(1, 9)))
        if number % 400 == 0:
            yield BAD_ROWS[number // 400 - 1]


def csv_file(seed: int = 2026) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows(seed))
    return text.getvalue().encode()


@transaction.atomic
def set_up(port: int) -> Workflow:
    """The demo's workflow and all it needs, sending to an SMTP server on this host. Made once; later calls only set
    the port."""
    engine, _ = Engine.objects.get_or_create(slug=SLUG, defaults={"name": "Demo: local mail catcher", "kind": "smtp"})
    engine.options = {"host": "127.0.0.1", "port": port, "security": "none", "max_connections": 4}
    engine.save()
    EngineLimit.objects.get_or_create(engine=engine, defaults={"quantity": RATE, "period": "second"})
    pool, _ = Pool.objects.get_or_create(slug=SLUG, defaults={"name": "Demo"})
    PoolMember.objects.get_or_create(pool=pool, engine=engine)
    audience, made = Audience.objects.get_or_create(
        slug=SLUG, defaults={"name": "Demo: 2,000 gardeners", "kind": AudienceKind.CSV}
    )
    if made:
        store_upload(audience, "gardeners.csv", [csv_file()])
    template, _ = Template.objects.get_or_create(slug=SLUG, defaults={"name": "Demo: spring letter"})
    save_version(template, subject=SUBJECT, text="", html=HTML)
    workflow, _ = Workflow.objects.get_or_create(
        slug=SLUG,
        defaults={
            "name": "Demo: spring letter",
            "audience": audience,
            "pool": pool,
            "from_name": "Gärtnerei Grün",
            "from_address": "letters@garden.example",
        },
    )
    Step.objects.get_or_create(workflow=workflow, position=1, defaults={"template": template})
    for number in SUPPRESSED:
        plain = normalise(address(number))
        Suppression.objects.get_or_create(
            identity=identity(plain),
            scope="",
            defaults={"address": plain, "reason": SuppressionReason.UNSUBSCRIBE, "source": "demo"},
        )
    return workflow
