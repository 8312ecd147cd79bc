"""What an audience has beside its settings: the file it reads, how far it was read, and its first rows."""

from rest_framework import serializers

from campaigns.models import Audience, AudienceBookmark, Upload


class UploadSerializer(serializers.ModelSerializer):
    """The file of an audience."""

    class Meta:
        model = Upload
        fields = ("filename", "size", "uploaded_at")


class BookmarkSerializer(serializers.ModelSerializer):
    """How far an audience was read that gives only what is new. `value` is "" when the next run gets everybody."""

    run = serializers.IntegerField(source="run_id", allow_null=True)

    class Meta:
        model = AudienceBookmark
        fields = ("value", "moved_at", "run")


def bookmark_of(audience: Audience) -> AudienceBookmark:
    """As it is stored; one that was never moved where there is none."""
    return AudienceBookmark.objects.filter(audience=audience).first() or AudienceBookmark(audience=audience)


class SampleRowSerializer(serializers.Serializer):
    """A row. With a `problem` it is no recipient, and `cells` holds what was read."""

    position = serializers.IntegerField(help_text="Where the audience has it: the line of a file, else its number.")
    address = serializers.CharField()
    problem = serializers.CharField(help_text="Why it gets no mail. Empty: it does.")
    cells = serializers.ListField(child=serializers.CharField())
    links = serializers.ListField(child=serializers.CharField())


class SampleSerializer(serializers.Serializer):
    """The first rows of an audience, read now: their `cells` are of the `columns`, their `links` of `link_columns`.
    With an `error`, it ends where it could not be read further."""

    label = serializers.CharField()
    columns = serializers.ListField(source="fields", child=serializers.CharField())
    link_columns = serializers.ListField(source="links", child=serializers.CharField())
    rows = SampleRowSerializer(many=True)
    error = serializers.CharField()
