"""What several test files share: plain functions, imported as
``from helpers.models import ...``.
"""
