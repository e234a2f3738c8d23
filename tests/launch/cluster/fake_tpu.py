"""A fake of Cloud TPU's gRPC API on loopback: queued resources go through scripted states.

It speaks the real protocol, with the messages of google-cloud-tpu, and keeps what it was asked.
"""

import collections
import concurrent.futures
import contextlib
from collections.abc import Callable, Iterable, Iterator

import grpc
from google.cloud import tpu_v2
from google.cloud.location import locations_pb2
from google.cloud.tpu_v2.services.tpu.transports import TpuGrpcTransport
from google.cloud.tpu_v2.types import cloud_tpu
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from google.rpc import error_details_pb2, status_pb2

State = tpu_v2.QueuedResourceState.State
USER = tpu_v2.QueuedResourceState.StateInitiator.USER
SERVICE = tpu_v2.QueuedResourceState.StateInitiator.SERVICE


class FakeTpu:
    """The queued resources of one zone. `states(name)` gives the states in which successive looks
    find a resource; the last one stays. A state is 'ACTIVE', or ('FAILED', code, message), or
    ('SUSPENDED', initiator)."""

    def __init__(self, states: Callable[[str], Iterable] = lambda name: ["ACTIVE"]):
        self.states = states
        self.there: dict[str, tpu_v2.QueuedResource] = {}
        self.scripts: dict[str, collections.deque] = {}
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.bodies: dict[str, tpu_v2.QueuedResource] = {}
        self.calls: collections.Counter = collections.Counter()
        self.refusals: dict[str, collections.deque] = collections.defaultdict(collections.deque)
        self.offered = ["v5litepod-4", "v5litepod-16", "v5litepod-256", "v6e-8"]
        self.zones = ["us-central1-a", "us-east5-b"]

    def refuse(self, method: str, code: grpc.StatusCode, message: str, detail=None, times=1):
        """The next `times` calls of a method fail."""
        self.refusals[method] += [(code, message, detail)] * times

    def create_queued_resource(self, request, context):
        name = request.queued_resource_id
        if name in self.there:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{name} exists")
        self.created.append(name)
        self.bodies[name] = self.there[name] = request.queued_resource
        self.scripts[name] = collections.deque(self.states(name))
        return self._done(tpu_v2.QueuedResource(request.queued_resource))

    def get_queued_resource(self, request, context):
        name = request.name.rpartition("/")[2]
        if name not in self.there:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{name} is not found")
        script = self.scripts[name]
        state = script.popleft() if len(script) > 1 else script[0]
        kind, *more = (state,) if isinstance(state, str) else state
        shown = tpu_v2.QueuedResourceState(state=State[kind])
        if kind == "FAILED":
            error = status_pb2.Status(code=more[0], message=more[1])
            shown.failed_data = tpu_v2.QueuedResourceState.FailedData(error=error)
        elif kind == "SUSPENDED":
            shown.state_initiator = more[0] if more else SERVICE
        found = tpu_v2.QueuedResource(self.there[name])
        found.state = shown
        return found

    def delete_queued_resource(self, request, context):
        name = request.name.rpartition("/")[2]
        if name not in self.there:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{name} is not found")
        assert request.force  # a queued resource with nodes is deleted only by force
        del self.there[name]
        self.deleted.append(name)
        return self._done(empty_pb2.Empty())

    def list_accelerator_types(self, request, context):
        if request.parent.rpartition("/")[2] not in self.zones:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "location is not found, or no access")
        types = [tpu_v2.AcceleratorType(type_=name) for name in self.offered]
        return tpu_v2.ListAcceleratorTypesResponse(accelerator_types=types)

    def list_locations(self, request, context):
        found = [locations_pb2.Location(location_id=zone) for zone in self.zones]
        return locations_pb2.ListLocationsResponse(locations=found)

    def _done(self, message) -> operations_pb2.Operation:
        made = operations_pb2.Operation(name="operations/1", done=True)
        made.response.Pack(getattr(type(message), "pb", lambda plain: plain)(message))
        return made

    def answer(self, method: str):
        """The handler of a method: it counts, refuses what is to be refused, and answers."""

        def handle(request, context):
            self.calls[method] += 1
            if self.refusals[method]:
                code, message, detail = self.refusals[method].popleft()
                if detail is not None:
                    status = status_pb2.Status(code=code.value[0], message=message)
                    status.details.add().Pack(detail)
                    raw = status.SerializeToString()
                    context.set_trailing_metadata((("grpc-status-details-bin", raw),))
                context.abort(code, message)
            return getattr(self, method)(request, context)

        return handle


def quota_detail(metric: str) -> error_details_pb2.ErrorInfo:
    """What the API attaches to a refusal by quota."""
    return error_details_pb2.ErrorInfo(
        reason="RATE_LIMIT_EXCEEDED", domain="googleapis.com", metadata={"quota_metric": metric}
    )


@contextlib.contextmanager
def serving(fake: FakeTpu) -> Iterator[dict]:
    """Serves the fake while entered; yields the arguments of a TpuClient that reaches it."""
    messages = {
        "CreateQueuedResource": cloud_tpu.CreateQueuedResourceRequest,
        "GetQueuedResource": cloud_tpu.GetQueuedResourceRequest,
        "DeleteQueuedResource": cloud_tpu.DeleteQueuedResourceRequest,
        "ListAcceleratorTypes": cloud_tpu.ListAcceleratorTypesRequest,
    }
    methods = {
        "CreateQueuedResource": "create_queued_resource",
        "GetQueuedResource": "get_queued_resource",
        "DeleteQueuedResource": "delete_queued_resource",
        "ListAcceleratorTypes": "list_accelerator_types",
    }
    tpu = {
        name: grpc.unary_unary_rpc_method_handler(
            fake.answer(methods[name]), kind.deserialize, _serialized
        )
        for name, kind in messages.items()
    }
    locations = {
        "ListLocations": grpc.unary_unary_rpc_method_handler(
            fake.answer("list_locations"),
            locations_pb2.ListLocationsRequest.FromString,
            _serialized,
        )
    }
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("google.cloud.tpu.v2.Tpu", tpu),
            grpc.method_handlers_generic_handler("google.cloud.location.Locations", locations),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    try:
        yield {"transport": TpuGrpcTransport(channel=channel)}
    finally:
        channel.close()
        server.stop(None)


def _serialized(message) -> bytes:
    found = message if hasattr(message, "SerializeToString") else type(message).pb(message)
    return found.SerializeToString()
