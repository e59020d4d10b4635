"""The wire: requests to operations, outcomes to responses, errors to statuses. No rules."""
