"""Where alarms go: Alertmanager, a webhook, and messengers by way of apprise."""

from stanch.alert.receivers.delivery import DeliveryError, Receiver

__all__ = ["DeliveryError", "Receiver"]
