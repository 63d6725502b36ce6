"""Pictures → which objects are on them, by a small detector in a model's folder `eye`; and what a prompt asks for."""
