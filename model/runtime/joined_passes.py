"""Joins the images of threads that wait for each other into one pass."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class JoinedPasses(Generic[In, Out]):
    """Computes one pass at a time: while it does, the images of other threads wait for the next.

    run: computes the results of several images, in their order. most: images in a pass.
    """

    def __init__(self, run: Callable[[Sequence[In]], Sequence[Out]], most: int) -> None:
        self.run, self.most = run, most
        self.changed, self.is_computing = threading.Condition(), False
        self.waiting: list[tuple[In, Future[Out]]] = []

    def compute(self, image: In) -> Out:
        """Compute the result of one image, perhaps together with others.

        What `run` raises is raised for each of the images that were computed together.
        """
        own: Future[Out] = Future()
        with self.changed:
            self.waiting.append((image, own))
        while not own.done():
            with self.changed:
                self.changed.wait_for(lambda: own.done() or not self.is_computing)
                if own.done():
                    break
                # Those that wait longest, perhaps without its own.
                some, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
                self.is_computing = True
            try:
                self.compute_together(some)
            finally:
                with self.changed:
                    self.is_computing = False
                    self.changed.notify_all()
        return own.result()

    def compute_together(self, some: Sequence[tuple[In, Future[Out]]]) -> None:
        """Compute a pass, and give each image's thread its result or the error."""
        try:
            found = self.run([image for image, _ in some])
            for (_, future), result in zip(some, found, strict=True):
                future.set_result(result)
        except Exception as error:  # noqa: BLE001 - raised by those who wait for the results
            for _, future in some:
                future.set_exception(error)
        finally:
            for _, future in some:
                future.cancel()  # where this thread was interrupted: nobody waits for ever
