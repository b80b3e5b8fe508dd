"""Recording one call: its rows (``trace``), what it reads of Python (``reads``), what it leaves behind (``record``)."""
