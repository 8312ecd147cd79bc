"""The sending window of a workflow: from an operator's settings to what travels with the message.

Holidays are looked up by country and become dates here, for the time that a run may last: delivery knows neither.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from campaigns import hours
from campaigns.exceptions import BadSchedule, BadWindow
from campaigns.wall_clock import zone_named
from delivery.core.window import Window, week_of

AHEAD = timedelta(days=731)  # how far holidays are looked up: the 24 months that a run may last at most
YESTERDAY = timedelta(days=1)  # somewhere it still is
WHOLE_DAYS = week_of((day, 0, 24 * 60) for day in range(7))


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """What an operator says of the window, in the words that he writes. `hours` empty: the whole day."""

    hours: str
    zone: str
    per_recipient: bool
    zone_field: str
    country: str
    subdivision: str
    closed_dates: str

    def window(self, now: datetime) -> Window | None:
        """The window, with the holidays of the time that a run may last from `now` on. None when there is none, and
        mails go at any time. Raises BadWindow."""
        zone = self._zone()
        field = self._zone_field()
        week = hours.week(self.hours) if self.hours.strip() else WHOLE_DAYS
        closed = hours.dates(self.closed_dates) | self._holidays((now - YESTERDAY).date(), (now + AHEAD).date())
        if not self.hours.strip() and not closed:
            if self.per_recipient:
                raise BadWindow("window_hours", f'Say which hours of his zone: for example "{hours.EXAMPLE}".')
            return None
        return Window(week, zone, closed, self.per_recipient, field)

    def _zone(self) -> str:
        try:
            return zone_named(self.zone).key
        except BadSchedule as refusal:
            raise BadWindow("window_zone", str(refusal)) from None

    def _zone_field(self) -> str:
        if not self.zone_field.isidentifier():
            raise BadWindow(
                "window_zone_field",
                f'"{self.zone_field}" is not how a template would name a field. A good one: "time_zone".',
            )
        return self.zone_field

    def _holidays(self, first: date, last: date) -> frozenset[date]:
        if not self.country:
            if self.subdivision:
                raise BadWindow("holiday_country", f'Of which country is {self.subdivision} a part? For example "CH".')
            return frozenset()
        # Here, because it is large, and few processes ever ask.
        import holidays

        country = self.country.upper()
        known = holidays.list_supported_countries(include_aliases=False)
        if country not in known:
            raise BadWindow(
                "holiday_country",
                f'Of "{self.country}" no holidays are known: write the two letters of a country (ISO 3166), for '
                'example "CH" for Switzerland.',
            )
        parts = {part.upper(): part for part in known[country]}
        if self.subdivision and self.subdivision.upper() not in parts:
            choice = f"leave it empty, or write one of {', '.join(known[country])}" if parts else "leave it empty"
            raise BadWindow("holiday_subdivision", f'{country} has no part "{self.subdivision}": {choice}.')
        subdivision = parts[self.subdivision.upper()] if self.subdivision else None
        found = holidays.country_holidays(country, subdiv=subdivision, years=range(first.year, last.year + 1))
        return frozenset(day for day in found if first <= day <= last)
