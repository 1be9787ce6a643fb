"""An offline verdict on policy documents that a customer pasted: the same causes and fixes as the access
check's, and what is wrong with how the documents are written.

It asks nobody. What a document does not decide is said as such (``Fault.CANNOT_TELL``), never guessed.
"""

from xmode_transfer.access.lint.lint import lint
from xmode_transfer.access.lint.records import Given, Issue, Kind, Report, Source
