"""A form for one address: written in its normal form, compared by its identity."""

from django import forms

from delivery.addresses import ImpossibleAddress, identity, normalise


class AddressForm(forms.ModelForm):
    """For a model with `address` and `identity`. A second spelling of an address that is there already is refused."""

    def clean_address(self) -> str:
        try:
            address = normalise(self.cleaned_data["address"])
        except ImpossibleAddress as error:
            raise forms.ValidationError(error.reason) from None
        self.instance.identity = identity(address)
        return address

    def _get_validation_exclusions(self) -> set[str]:
        # `identity` is no field of the form, and Django checks no constraint over a field that the form leaves out.
        return super()._get_validation_exclusions() - {"identity"}
