"""A client's way to the registry of images: `client.images`."""

import builtins
from collections.abc import Sequence

from runtara.protocol.api import Registration
from runtara.protocol.configuration import ForgetImage, ImagesRequest, ImageView, RegisteredImage, RegisterImage
from runtara.protocol.errors import ImageNotFound
from runtara.protocol.ids import check_id
from runtara.protocol.images import check_image
from runtara.protocol.records import Image

from .ports import Api


class Images:
    """The images that this tenant's containers are made of, in versions."""

    def __init__(self, api: Api, tenant: str) -> None:
        self._api = api
        self._tenant = tenant

    async def register(self, image: Image, workflows: Sequence[Registration]) -> RegisteredImage:
        """Let `workflows` be started with `image` from now on; instances that exist keep theirs.

        The kind of a registration is `docker` or `kubernetes`; anything else means `docker`. The platform gives the
        version, whatever `image.version` is: the next one, or the last if nothing is new.
        Raises `InvalidImage`, `InvalidId`.
        """
        request = RegisterImage(image=check_image(image), workflows=list(workflows))
        return await self._api.call("register_image", request, RegisteredImage)

    async def list(self, name: str | None = None) -> builtins.list[ImageView]:
        """All versions by name, the newest first; or those of one image."""
        return await self._api.call("images", ImagesRequest(name=name), builtins.list[ImageView])

    async def get(self, name: str, *, version: int | None = None) -> ImageView:
        """A version, or the newest. Raises `ImageNotFound`."""
        views = await self.list(check_id(name, "image"))
        view = next((view for view in views if version in (None, view.image.version)), None)
        if view is None:
            called = name if version is None else f"{name}@{version}"
            hint = "`runtara image list` shows those that there are"
            raise ImageNotFound(image=called, where=f"in tenant {self._tenant!r}", hint=hint)
        return view

    async def delete(self, name: str, *, version: int | None = None) -> builtins.list[int]:
        """Delete a version, or all of them; returns which. Raises `ImageNotFound`, `ImageInUse`."""
        request = ForgetImage(name=check_id(name, "image"), version=version)
        return await self._api.call("forget_image", request, builtins.list[int])
